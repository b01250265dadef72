"""What every test runs under: one copy of Limbeck, in this process and in the processes that tests start."""

import os

from helpers.old_names import refuse_old_names
from helpers.paths import PACKAGE, SEARCH_PATH
from limbeck import _infinigram

refuse_old_names()
os.environ["PYTHONPATH"] = SEARCH_PATH

# a sanitized build that the ordinary one shadows would test nothing
expected = os.environ.get("LIMBECK_TEST_EXTENSION")
assert expected is None or os.path.samefile(os.path.dirname(str(_infinigram.__file__)), expected), _infinigram.__file__
assert os.path.dirname(str(_infinigram.__file__)) == str(PACKAGE), f"{_infinigram.__file__} is not beside {PACKAGE}"
