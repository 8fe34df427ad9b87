"""The command `ssd`: each module is a command around the package `ssd`; `main.py` lists them."""
