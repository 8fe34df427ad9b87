"""One thin script per stage, each run as `python -m stages.NAME`, and the commands beside the pipeline."""

import signal
import sys

# First of all, as it notes which process is DVC: that may end while a stage imports torch.
import stages.dvc_process  # noqa: F401 (imported for that note)

# While Python looks for the module of `python -m`, argv[0] is "-m".
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Before and after a stage handles it: Ctrl-C among the imports, or at the exit, would be a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
