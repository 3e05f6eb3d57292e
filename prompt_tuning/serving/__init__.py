"""The predictor over HTTP: `prompt-tuning serve`. Only here are FastAPI and uvicorn imported."""
