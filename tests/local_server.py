"""An HTTP server on the loopback address for as long as a block runs."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def local_server(get):
    """Calls `get(handler)` for every GET and HEAD request; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            get(self)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
