"""flowerpress.server"""
