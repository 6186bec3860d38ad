"""How much of a training sample a model has by heart: scores, proxies, partitions by them."""
