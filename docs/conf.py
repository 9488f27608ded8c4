"""How Sphinx builds the pages (`make docs`)."""

from importlib.metadata import version as installed_version

project = "limner"
author = "the limner authors"
copyright = "2026, the limner authors"
release = version = installed_version("limner")

extensions = ["myst_nb"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True

# A page that is a notebook is executed, and one that fails stops the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

html_theme = "furo"
html_title = "limner"
