import io
import sys

from limner.serving.request_log import RequestLog, log_to_standard_error, requests_log

FACTS = {"request": "req_1", "method": "GET", "path": "/health", "status": 200, "seconds": 0.1}


def test_lines_go_to_what_standard_error_is_by_then(monkeypatch):
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(requests_log, name, getattr(requests_log, name))
    before, now = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", before)
    log_to_standard_error()
    RequestLog("text").write(FACTS)
    assert before.getvalue() == "req_1 GET /health 200 0.1\n"
    before.close()  # as pytest and notebooks do with what they had put in its place
    monkeypatch.setattr(sys, "stderr", now)
    RequestLog("text").write(FACTS)
    assert now.getvalue() == "req_1 GET /health 200 0.1\n"
