"""What do several models of one base have in common? What is compared, and the page that shows it.

``groups``   models that can be compared, their pairs and lines of stages, as plain values
``stages``   what each stage of a line kept, turned, gave up and added
``labels``   labels that say much the same in several models, or in one alone
``view``     what the page of a group shows
``sections`` the parts of that page that are of one pair or one line
``chart``    how near the directions of two models lie
``summary``  the figures of a group for the command line

Cosines are computed elsewhere and come as values: nothing here reads a vector.
"""
