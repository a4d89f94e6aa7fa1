"""SFT Lab's core: everything but the page, floor upon floor (see ARCHITECTURE.md)."""
