"""GenEval: does the picture show the objects, counts, colours and positions that the prompt asks for?"""
