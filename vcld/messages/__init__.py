"""What people are told: texts, substitution and mail.

Facts come from the snapshot, texts from the site's ``variable`` table or from ours.
Nothing here decides whether somebody is to be told; that is the handlers' business.
"""
