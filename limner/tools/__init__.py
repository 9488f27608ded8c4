"""Tools that a model may use.

So far how models write calls of functions: what to read them from (`parsers`), which of the forms
in use a model was trained on (`formats`), and what to tell a model that was trained on none
(`preamble`). Text only: nothing here runs a model or a function.
"""
