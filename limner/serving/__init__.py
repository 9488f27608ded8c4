"""The HTTP server: the field's own API over one engine thread a model.

A request is checked (`requests`), made into token ids and sampling (`chat`, `completions`), handed
to the engine thread (`engine_thread`), and its events become JSON or server-sent events. Nothing
here computes anything.
"""
