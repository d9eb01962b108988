"""The networks of stereo matching against the same ones in PyTorch, written here from the paper's tables."""

import numpy as np
import pytest
import tensorflow as tf

from appzoo.stereo_matching import layers, networks

torch = pytest.importorskip("torch", reason="an extra of the tests")
nn = torch.nn


class ConvNorm(nn.Module):
    def __init__(self, given, filters, size=3, stride=1, dilation=1, axes=2, relu=True, bias=False):
        super().__init__()
        conv, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[axes]
        self.conv = conv(given, filters, size, stride, dilation * (size // 2), dilation, bias=bias)
        self.norm, self.relu = norm(filters), relu

    def forward(self, x):
        x = self.norm(self.conv(x))
        return torch.relu(x) if self.relu else x


class UpConvNorm(nn.Module):
    def __init__(self, given, filters):
        super().__init__()
        self.conv = nn.ConvTranspose3d(given, filters, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.norm = nn.BatchNorm3d(filters)

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(nn.Module):
    def __init__(self, given, filters, stride=1, dilation=1, project=False, axes=2, bias=False):
        super().__init__()
        options = {"axes": axes, "bias": bias}
        self.first = ConvNorm(given, filters, 3, stride, dilation, **options)
        self.second = ConvNorm(filters, filters, 3, 1, dilation, relu=False, **options)
        self.project = ConvNorm(given, filters, 1, stride, relu=False, **options) if project else None

    def forward(self, x):
        return self.second(self.first(x)) + (x if self.project is None else self.project(x))


class TinyFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        blocks = (Residual(16, 16, bias=True) for _ in range(2))
        self.layers = nn.Sequential(ConvNorm(3, 16, stride=2, bias=True), *blocks)

    def forward(self, x):
        return self.layers(x)


class TinyMatching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(32, 16, axes=3, bias=True), Residual(16, 16, axes=3, bias=True))
        self.spread, self.cost = nn.BatchNorm3d(16), nn.Conv3d(16, 1, 3, padding=1)

    def forward(self, x):
        return [self.cost(self.spread(self.layers(x)))]


class PyramidFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        stem = [ConvNorm(3, 32, stride=2), ConvNorm(32, 32), ConvNorm(32, 32)]
        self.first = nn.Sequential(*stem, *(Residual(32, 32) for _ in range(3)))
        more = (Residual(64, 64) for _ in range(15))
        self.raw = nn.Sequential(Residual(32, 64, 2, project=True), *more)
        deep = [Residual(64, 128, project=True), Residual(128, 128), Residual(128, 128)]
        self.skip = nn.Sequential(*deep, *(Residual(128, 128, dilation=2) for _ in range(3)))
        self.pools = nn.ModuleList([ConvNorm(128, 32, 1) for _ in range(4)])
        self.fuse, self.last = ConvNorm(320, 128), nn.Conv2d(128, 32, 1, bias=False)

    def forward(self, x):
        raw = self.raw(self.first(x))
        skip = self.skip(raw)
        around = [raw, skip]
        for side, layer in zip((8, 16, 32, 64), self.pools, strict=True):
            pooled = layer(nn.functional.avg_pool2d(skip, side, side))
            around.append(nn.functional.interpolate(pooled, skip.shape[2:], mode="bilinear"))
        return self.last(self.fuse(torch.cat(around, 1)))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.cost = ConvNorm(32, 32, axes=3), nn.Conv3d(32, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return self.cost(self.first(x))


class BasicMatching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(ConvNorm(64, 32, axes=3), ConvNorm(32, 32, axes=3))
        self.blocks = nn.Sequential(*(Residual(32, 32, axes=3) for _ in range(4)))
        self.head = Head()

    def forward(self, x):
        return [self.head(self.blocks(self.first(x)))]


class Hourglass(nn.Module):
    def __init__(self):
        super().__init__()
        self.down_1 = ConvNorm(32, 64, stride=2, axes=3)
        self.side_1 = ConvNorm(64, 64, axes=3, relu=False)
        self.down_2 = ConvNorm(64, 64, stride=2, axes=3)
        self.side_2 = ConvNorm(64, 64, axes=3)
        self.up_1, self.up_2 = UpConvNorm(64, 64), UpConvNorm(64, 32)

    def forward(self, x, presqueeze, postsqueeze):
        pre = self.side_1(self.down_1(x))
        pre = torch.relu(pre if postsqueeze is None else pre + postsqueeze)
        post = self.up_1(self.side_2(self.down_2(pre)))
        post = torch.relu(post + (pre if presqueeze is None else presqueeze))
        return self.up_2(post), pre, post


class HourglassMatching(nn.Module):
    def __init__(self):
        super().__init__()
        start = [ConvNorm(64, 32, axes=3), ConvNorm(32, 32, axes=3), Residual(32, 32, axes=3)]
        self.first = nn.Sequential(*start)
        self.hourglasses = nn.ModuleList([Hourglass() for _ in range(3)])
        self.heads = nn.ModuleList([Head() for _ in range(3)])

    def forward(self, x):
        start = self.first(x)
        out_1, pre_1, post_1 = self.hourglasses[0](start, None, None)
        out_2, _, post_2 = self.hourglasses[1](out_1 + start, pre_1, post_1)
        out_3, _, _ = self.hourglasses[2](out_2 + start, pre_1, post_2)
        cost_1 = self.heads[0](out_1 + start)
        cost_2 = self.heads[1](out_2 + start) + cost_1
        return [cost_1, cost_2, self.heads[2](out_3 + start) + cost_2]


def torch_volume(left, right, disparities):
    volume = torch.zeros(left.shape[0], 2 * left.shape[1], disparities, *left.shape[2:])
    for i in range(disparities):
        volume[:, : left.shape[1], i, :, i:] = left[..., i:]
        volume[:, left.shape[1] :, i, :, i:] = right[..., : left.shape[3] - i]
    return volume


def torch_disparity(cost, size):
    cost = nn.functional.interpolate(cost, size, mode="trilinear", align_corners=False)[:, 0]
    return (torch.softmax(cost, 1) * torch.arange(size[0]).view(1, -1, 1, 1)).sum(1)


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def randomised(module, seed):
    """The module with random weights and statistics, in evaluation mode."""
    torch.manual_seed(seed)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.dtype.is_floating_point and value.ndim == 1:
            centred = name.endswith(("bias", "running_mean"))
            value.data = torch.randn(value.shape) * 0.1 if centred else torch.rand(value.shape) + 0.5
    return module.eval()


def copy(ours, theirs):
    """Gives a layer the weights of a module whose parts have the same names."""
    if isinstance(theirs, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)):
        weights = [theirs.weight.detach().permute(*range(2, theirs.weight.ndim), 1, 0)]
        ours.set_weights([np.asarray(w) for w in weights + ([theirs.bias.detach()] if theirs.bias is not None else [])])
    elif isinstance(theirs, (nn.BatchNorm2d, nn.BatchNorm3d)):
        parts = (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)
        ours.set_weights([part.detach().numpy() for part in parts])
    elif isinstance(theirs, (nn.Sequential, nn.ModuleList)):
        for one, other in zip(ours, theirs, strict=True):
            copy(one, other)
    else:
        for name, child in theirs.named_children():
            copy(getattr(ours, name), child)


def assert_close(ours, theirs, relative):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.01
    assert np.abs(ours - theirs).max() <= relative * np.abs(theirs).max()


def both(ours, theirs, shape, *, seed=0):
    """What a layer and a module with the same weights make of the same input, channels last."""
    theirs = randomised(theirs, seed)
    x = torch.randn(shape)
    ours(channels_last(x))
    copy(ours, theirs)
    with torch.no_grad():
        return ours(channels_last(x)), theirs(x)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"size": 1, "stride": 2}, {"relu": False}])
def test_convolutions_pad_as_those_of_torch(axes, options):
    shape = (2, 5, 8, 12, 10)[: axes + 2]
    found, wanted = both(layers.ConvNorm(7, axes=axes, **options), ConvNorm(5, 7, axes=axes, **options), shape)
    assert_close(found, channels_last(wanted), 1e-5)


def test_transposed_convolution_drops_the_first_plane_row_and_column():
    found, wanted = both(layers.UpConvNorm(6), UpConvNorm(4, 6), (2, 4, 3, 5, 4))
    assert found.shape == (2, 6, 10, 8, 6)
    assert_close(found, channels_last(wanted), 1e-5)


@pytest.mark.parametrize("options", [{"stride": 2, "project": True}, {"dilation": 2}, {"axes": 3}])
def test_residual_blocks_end_without_relu(options):
    shape = (2, 6, 8, 12, 10)[: options.get("axes", 2) + 2]
    found, wanted = both(layers.Residual(6, **options), Residual(6, 6, **options), shape)
    assert_close(found, channels_last(wanted), 1e-5)
    assert np.asarray(found).min() < 0


def test_cost_volume_shifts_right_features_and_leaves_zeros():
    left, right = torch.randn(2, 3, 4, 9), torch.randn(2, 3, 4, 9)
    found = layers.cost_volume(channels_last(left), channels_last(right), 5)
    np.testing.assert_array_equal(found, channels_last(torch_volume(left, right, 5)))
    assert not np.asarray(found)[:, 3, :, :3].any()


def test_upsampling_is_trilinear_with_centres_at_halves():
    cost = torch.randn(2, 1, 6, 5, 7)
    wanted = nn.functional.interpolate(cost, (24, 20, 28), mode="trilinear", align_corners=False)[:, 0]
    found = layers.upsampled_cost(cost[:, 0].numpy(), 24, [20, 28])
    assert_close(found, wanted.permute(0, 2, 3, 1), 1e-6)


def test_soft_argmin_of_one_hot_costs_is_their_index():
    index = np.random.default_rng(0).integers(0, 16, (2, 5, 7))
    found = layers.soft_argmin(tf.one_hot(index, 16) * 1000)
    np.testing.assert_allclose(found, index, atol=1e-5)
    np.testing.assert_allclose(layers.soft_argmin(tf.zeros([1, 1, 1, 16])), [[[7.5]]])


def test_hourglass_takes_what_the_ones_before_have():
    theirs = randomised(Hourglass(), 1)
    x, pre, post = torch.randn(1, 32, 8, 8, 12), torch.randn(1, 64, 4, 4, 6), torch.randn(1, 64, 4, 4, 6)
    ours = networks._Hourglass("hourglass")
    ours(channels_last(x), None, None)
    copy(ours, theirs)
    assert sum(v.shape.num_elements() for v in ours.trainable_variables) == 553_664
    for given in ((None, None), (pre, post)):
        with torch.no_grad():
            wanted = theirs(x, *given)
        found = ours(channels_last(x), *(None if each is None else channels_last(each) for each in given))
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, channels_last(other), 1e-5)


def test_costs_of_the_hourglasses_are_added_up():
    found, wanted = both(networks.HourglassMatching(), HourglassMatching(), (1, 64, 8, 8, 12))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, channels_last(other), 2e-5)


def test_costs_of_the_basic_network():
    ours = networks.BasicMatching()
    (found,), (wanted,) = both(ours, BasicMatching(), (1, 64, 4, 8, 12))
    assert_close(found, channels_last(wanted), 1e-5)
    assert sum(v.shape.num_elements() for v in ours.trainable_variables) == 3_672_896 - 3_339_552


class Whole(nn.Module):
    def __init__(self, features, matching, disparities, scale):
        super().__init__()
        self.features, self.matching, self.disparities, self.scale = features, matching, disparities, scale

    def forward(self, left, right):
        mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        found = [self.features((image - mean) / deviation) for image in (left, right)]
        volume = torch_volume(*found, self.disparities // self.scale)
        return [torch_disparity(cost, (self.disparities, *left.shape[2:])) for cost in self.matching(volume)]


def assert_whole_network_agrees(name, theirs, size, parameters):
    theirs = randomised(theirs, 2)
    left, right = torch.rand(1, 3, *size), torch.rand(1, 3, *size)
    ours = networks.build(name, theirs.disparities)
    ours(channels_last(left), channels_last(right))
    copy(ours, theirs)
    assert sum(v.shape.num_elements() for v in ours.trainable_variables) == parameters
    with torch.no_grad():
        wanted = theirs(left, right)
    (found,) = ours(channels_last(left), channels_last(right))
    assert_close(found, wanted[-1], 1e-4)
    assert float(wanted[-1].std()) > 0.01


def test_tiny_network_has_its_parameters_and_agrees_with_torch():
    assert_whole_network_agrees("tiny", Whole(TinyFeatures(), TinyMatching(), 16, 2), (32, 64), 38_145)


@pytest.mark.slow
def test_pyramid_features_have_their_parameters_and_agree_with_torch():
    ours = networks.PyramidFeatures()
    found, wanted = both(ours, PyramidFeatures(), (1, 3, 256, 256))
    assert_close(found, channels_last(wanted), 1e-4)
    assert sum(v.shape.num_elements() for v in ours.trainable_variables) == 3_339_552


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "matching", "parameters"),
    [("psm_basic", BasicMatching, 3_672_896), ("psmnet", HourglassMatching, 5_224_768)],
)
def test_whole_networks_have_their_parameters_and_agree_with_torch(name, matching, parameters):
    assert_whole_network_agrees(name, Whole(PyramidFeatures(), matching(), 48, 4), (256, 256), parameters)


def test_training_returns_a_map_for_every_head():
    image = tf.zeros([1, 32, 32, 3])
    network = networks.StereoNetwork(networks.TinyFeatures(), networks.HourglassMatching(), 16)
    # Its own features have 16 channels, and the hourglasses take any number.
    assert [len(network(image, image, training=training)) for training in (True, False)] == [3, 1]
