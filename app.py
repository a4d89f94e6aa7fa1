"""SFT Lab's page: ``python app.py``, or a Hugging Face Space."""

from sft_core.ui import build_app

demo, options = build_app()

if __name__ == "__main__":
    demo.launch(**options)
