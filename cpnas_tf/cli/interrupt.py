"""Imported first by each command: Ctrl-C while it loads ends it, without a traceback of imports.

What answers Ctrl-C afterwards is `app.run`.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
    signal.signal(signal.SIGINT, signal.SIG_DFL)
