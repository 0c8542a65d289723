"""The protocols' doors: they translate, and decide nothing."""
