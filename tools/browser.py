"Serve a folder on loopback, and look at it with a Chromium that is installed and calls nobody"
import functools, io, shutil, threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

names = 'chromium', 'chromium-browser', 'google-chrome'
flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']

def installed(): return next(filter(None, map(shutil.which, names)), None)

class Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *args, instead, **kwargs):
        self.instead = instead
        super().__init__(*args, **kwargs)
    def log_message(self, *args): pass
    def send_head(self):
        body = self.instead.get(self.path)
        if body is None: return super().send_head()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

@contextmanager
def served(folder, instead=None):
    "Address at which `folder` is served meanwhile; `instead` has the bytes of files, by path, that are served for those in it"
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder, instead=instead or {}))
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
