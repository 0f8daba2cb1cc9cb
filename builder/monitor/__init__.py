"""Does a model in use do what its calibration never showed? Directions as a watch on conversations.

``traces``   activations of one conversation, token by token
``ranges``   what calibration reached, per direction and role, and how often chance goes beyond it
``watch``    conversations held against the ranges: which direction, which token, by how much
``conversations``  documents as traces, and ranges calibrated on them
``subject``  what a monitor was made for, and that it is used for nothing else
``monitor_file``  a monitor on disk
"""
