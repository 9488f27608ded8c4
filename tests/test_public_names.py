import subprocess
import sys

import limner


def test_the_public_names_are_these():
    assert limner.__all__ == [
        "Completion",
        "Distribution",
        "LanguageModel",
        "Sampling",
        "Tokenizer",
        "__version__",
        "load",
        "pull",
    ]
    for name in limner.__all__:
        assert getattr(limner, name) is not None
        assert name in dir(limner)


def test_import_limner_imports_nothing_but_itself():
    program = (
        "import sys; before = set(sys.modules); import limner;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['limner']\n"


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert not hasattr(limner, "laod")
