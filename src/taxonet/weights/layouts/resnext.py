"""How ResNeXt weights of other libraries are named: as ResNet's."""

from taxonet.weights.layouts.resnet import torchvision

LAYOUTS = {"torchvision": torchvision}
