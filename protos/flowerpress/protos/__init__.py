"""flowerpress.protos"""
