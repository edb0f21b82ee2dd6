"""The worklist page: a web server in a thread of the desk process, on the journal and the files of the archive.

server.py listens and stops, routes.py answers, feed.py tells every open page what has changed (changes.py), claims.py
lets people claim studies, lightbox.py shows slices (viewing.py their addresses, window.py their grey values, masks.py
and outline.py what is drawn on them), picture.py turns the overview image into a PNG; access.py and its neighbours
decide who may ask. templates/ has the pages, static/ their style and their program; there is no build step and nothing
is fetched from elsewhere.
"""

from triage_node.web.routes import application
from triage_node.web.server import Page, serve

__all__ = ["Page", "application", "serve"]
