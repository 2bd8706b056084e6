"""Rates, sizes and qualities as targets. Only the encoder knows of it: each frame's QP is in the stream as ever.

    controller.py   who decides each frame's header, and learns what it took
    buffer.py       the leaky bucket between encoder and decoder
    one_pass.py     a bit rate, live: a law on what finished frames took
    search.py       a size, a rate or a quality, by coding several times: the search alone
"""
