"""Home Assistant, told of devices and values by its MQTT discovery. docs/home-assistant.md"""
