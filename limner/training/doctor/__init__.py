"""Before a long run: will it fit, and will it learn what it should?"""
