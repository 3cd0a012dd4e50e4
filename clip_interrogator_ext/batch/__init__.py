"""A folder of pictures becomes a captioned data set."""
