"""Models on disk: the ecosystem's formats, read and written; the catalogue; downloads."""
