"""Answers as HL7 v2.5.1 messages to a RIS.

An answer becomes observations (observations.py), which together with whose study it is (subject.py) become an ORU^R01
(oru.py) in the signs of the pipe encoding (er7.py); the bytes travel in MLLP blocks (mllp.py), and what comes back is
an acknowledgement whose meaning is one table (acknowledgement.py). hl7apy knows the grammar of the standard: it puts
the segments together and refuses a message that does not conform, so that none such leaves.
"""
