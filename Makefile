.PHONY: export test nightly clean run index docs
export: ; nbdev-export
test: ; pytest
nightly: ; HYPOTHESIS_PROFILE=nightly pytest tests/test_engine.py tests/test_folder.py tests/test_docs.py tests/test_ray.py && nbdev-test --flags slow
clean: ; nbdev-clean
run: ; python tools/run_nbs.py
index: ; python -W ignore tools/docs.py --index
docs: ; python -W ignore tools/docs.py && NO_MKDOCS_2_WARNING=1 mkdocs build --strict
