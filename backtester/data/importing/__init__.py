"""Import candle files of other programs: recognise, decode, screen, merge.

`opening` opens a file and tells its format; one module per format decodes it, to the same
`Found`; `screening` and `merging` decide which rows are taken; `importer` acts.
"""
