.PHONY: export test nightly clean run
export: ; nbdev-export
test: ; pytest
nightly: ; HYPOTHESIS_PROFILE=nightly pytest tests/test_engine.py
clean: ; nbdev-clean
run: ; python tools/run_nbs.py
