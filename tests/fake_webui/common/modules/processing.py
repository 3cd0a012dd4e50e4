"""A small stand-in for the WebUI's module of that name."""


def process_images(p):
    return p()
