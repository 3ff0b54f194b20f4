"""Answers of a model, in the form of the OpenAI API, and their attribution."""
