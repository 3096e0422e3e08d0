"""Stand-ins for the providers of hosted video models: real HTTP servers on this machine.

They speak a provider's API, fetch and check real inputs, and misbehave on demand. They make no
AI video: what comes back is the picture, slowly pushed in on, and the voice.

    python -m local.standin --provider runcomfy --token secret

`server` holds what every stand-in shares; one module per provider speaks its dialect.
"""
