"""From a network and token ids to more token ids: sampling and the engine."""
