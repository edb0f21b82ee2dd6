"""The soak: archives that misbehave on purpose, studies for them, and who judges afterwards what arrived."""
