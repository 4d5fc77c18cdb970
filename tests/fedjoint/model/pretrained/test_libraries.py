"""Optional libraries: one line where one is missing, and no chatter where it is there."""

import logging
import sys
import warnings

import pytest

from fedjoint.errors import UserError
from fedjoint.model.pretrained.folder import load_pretrained
from fedjoint.model.pretrained.libraries import library, quiet
from fedjoint.model.pretrained.tokenizer import words_of

ACTS = [lambda path: load_pretrained(path, weights=True), lambda path: words_of(path, 8)]


@pytest.mark.parametrize("act", ACTS)
def test_a_missing_library_is_named_with_the_extra(act, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'fedjoint\[hf\]'"):
        act(str(tmp_path))


def test_a_library_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("import no_such_part\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"halfway cannot be imported: .*no_such_part"):
        library("halfway", "hf")
    with pytest.raises(UserError, match=r"leaving cannot be imported: it calls sys\.exit\(3\)"):
        library("leaving", "hf")


def test_chatter_is_kept_off_and_then_let_through_again(recwarn, caplog):
    loud = logging.getLogger("transformers.modeling_utils")
    with quiet():
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
        loud.warning("some weights are not used")
    assert not recwarn.list and not caplog.records
    warnings.warn("deprecated", FutureWarning, stacklevel=1)
    assert len(recwarn.list) == 1
