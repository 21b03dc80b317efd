"""The app of a hosted Space. The folder model is a copy of a run, or of its parts below."""

from lord_fast import Lord
from lord_fast.ui.app import build

app = build(Lord.load("model"), "LORD: class and content")

if __name__ == "__main__":
    app.launch()
