"""flowerpress.simulations"""
