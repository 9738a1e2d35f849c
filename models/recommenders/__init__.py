"""One file a recommender; `models.registry` lists them."""
