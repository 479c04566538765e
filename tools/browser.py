"Serve a folder on loopback, and look at it with a Chromium that is installed and calls nobody"
import functools, shutil, threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

names = 'chromium', 'chromium-browser', 'google-chrome'
flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']

def installed(): return next(filter(None, map(shutil.which, names)), None)

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@contextmanager
def served(folder):
    "Address at which `folder` is served meanwhile"
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    server.handle_error = lambda *args: None  # a browser that leaves a page hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown(), server.server_close()

@contextmanager
def browsing():
    "A browser"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        res = p.chromium.launch(executable_path=installed(), args=flags)
        try: yield res
        finally: res.close()
