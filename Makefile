.PHONY: export test clean run
export: ; nbdev-export
test: ; pytest
clean: ; nbdev-clean
run: ; python tools/run_nbs.py
