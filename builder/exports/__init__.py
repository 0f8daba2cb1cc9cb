"""How does a run get into other tools? Files in the forms that they import.

``neuronpedia``  Neuronpedia's layout for bulk import
``tables``       Parquet files
``rows``         what a direction's poles become there
``written``      a folder of files that appears whole
"""
