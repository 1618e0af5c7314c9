"""What an LMDB file is, how it was made and what is in it.

    facts           the facts as a JSON object, and as text
    statements      the same in plain words and charts
    record_kind     what one record is, by its image's header
    histogram       bins with round bounds
"""
