"""Dropreel: drop a picture and a voice into a bucket, get a talking video back."""
