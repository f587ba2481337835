"""The words of our own spoken set: common ones, rarer ones, and what is in other dictionaries."""

_COMMON = """
table paper water market summer winter number letter doctor teacher window garden minute moment morning evening
kitchen sister brother mother father daughter family nature music color mirror pocket basket ticket button cotton
lemon tomato potato banana pepper butter bottle apple rabbit monkey tiger lion camel spider river valley city
village office dollar metal leather feather weather picture future culture reason season person lesson
problem pattern private public program project product promise profit protect provide police polite politics
position possible power pretty prison purpose question quiet radio rapid ready recent record remember repeat
report result return ribbon robot rocket salad salary second secret select senior serious service seven signal
silent silver similar simple single society soldier solid sudden sugar summary support surface system telephone
television temple tennis theory tonight topic total tower travel typical vacation vegetable vehicle victory
visit volume welcome woman wonder yellow animal baby beautiful begin believe before beside better beyond body
camera capital carpet castle ceremony company computer condition consider copy corner cover decide defend
degree delicate deliver demand deny develop dinner direct
"""
COMMON = tuple(_COMMON.split())
_RARER = """
abacus alabaster aluminum amulet apparatus aviary balustrade banister barometer basilisk bassoon battalion
bayonet benevolent bituminous bivouac bolero brigadier calamity caliber calico canopy caravan cardamom carafe
catapult caviar celery chameleon chevalier cinnamon citadel clarinet coriander corona covenant crocodile cupola
dandelion debonair decimate delirium derelict diadem domino dormitory dragonfly dromedary dynamo ebony
effigy eminent epilogue falcon fandango felony filament filigree flamingo foliage fugitive
gabardine galaxy galleon gazebo gelatin geranium gladiator gondola gorilla gramophone halibut harmonica hegemony
heliotrope hemisphere hexagon hibiscus honorary humidity idiosyncrasy iguana impetus indigo invalid jubilee
juvenile kilogram labyrinth lacquer lamentable laminate lavender limerick lunatic magenta malachite mandolin
maniac manatee marigold marinate marmalade masquerade medallion megaphone melancholy metronome minaret minuet
molasses monolith mutiny navigator nebula obelisk octagon omega orator oregano palisade panorama papaya
parasol pedestal pelican pendulum peninsula perimeter petunia picador pirate pomegranate porcelain
"""
RARER = tuple(_RARER.split())
# What a swapped consonant would give that is a word or sounds like one: found with the CMU dictionary and espeak-ng.
_TAKEN = """
barden baughter becide beny binner bollar canel carico cozer darden defore detter dody dutter dutton fister gaby
gasket gollar gutter kable kaper kemple kiger kower leady leason lenon liver locket mature mekal morasses netal
nother pater peacher picket pilate popic racquer reather retort retter rion rizer sather seather suture taper
tepper tiber tomako topal
"""
TAKEN = tuple(_TAKEN.split())
