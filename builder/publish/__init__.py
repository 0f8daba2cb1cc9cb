"""How does a built site get to its readers? Checked first, then put where a host takes it from.

``preview``       the folder as a host would serve it, on this machine
``checks``        all that is wrong with a site, and what is to be known of it
``page_links``    whether every link of a page leads somewhere
``private_names`` names of this machine that no file may hold
``limits``        what hosts take, and what would make a site fit
``copies``        a clean copy in a folder, also as a Hugging Face Space
``branch``        a commit on the branch that a host serves
``workflow``      a workflow that publishes the site of a repository
``space``         upload to a Space
"""
