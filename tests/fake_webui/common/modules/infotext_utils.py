"""A small stand-in for the WebUI's module of that name."""

paste_fields = {}


def image_from_url_text(filedata):
    return filedata[0]
