"""flowerpress.client"""
