"""A small stand-in for the WebUI's module of that name."""

models_path = "/webui/models"
