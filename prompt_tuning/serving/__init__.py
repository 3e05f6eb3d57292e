"""The predictor over HTTP: `prompt-tuning serve`. FastAPI and uvicorn are imported only here."""
